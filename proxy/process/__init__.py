"""The running process: serving, `exec`, systemd, hardening, and several worker processes."""

"""What `explain` and `doctor` find out."""

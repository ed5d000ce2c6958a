"""The admin listener: status, metrics, reload and the live inspector. Off unless asked for."""

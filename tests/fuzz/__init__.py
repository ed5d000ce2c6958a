"""Random bytes against everything that reads what others wrote (make fuzz)."""

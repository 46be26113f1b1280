"""What is so on this machine. Looks, changes nothing."""

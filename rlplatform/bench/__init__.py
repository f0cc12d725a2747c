"""Speed, side by side: our environments, whole training against other libraries, and the machine's own limit."""

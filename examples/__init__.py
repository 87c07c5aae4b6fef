"""Examples: small programs to read, run and take apart."""

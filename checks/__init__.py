"""What `make check` and `make rehearse` hold deploy/ against."""

"""What forges tell us by themselves."""

"""What a person types: put in order, parsed, and answered clearly where it is wrong. Imports no Lightning."""

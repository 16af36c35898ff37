"""What kvparity relies on in other libraries beyond their documentation, one file for each."""

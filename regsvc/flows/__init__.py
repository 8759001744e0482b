"""What a person does, one method each: read, hash, then one transaction; then ring the bell."""

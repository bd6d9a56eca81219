"""What the documents are made by."""

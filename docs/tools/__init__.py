"""What makes a site of the pages, beside Sphinx."""

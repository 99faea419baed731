"""What is released: built from a copy without git, looked into, and tried in new environments."""

"""What the command line offers beside the stages, a file or folder each."""

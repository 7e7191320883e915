"""What is done with the calculator and the classifier over many structures."""

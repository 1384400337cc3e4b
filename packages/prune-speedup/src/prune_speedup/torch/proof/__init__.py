"""Running the small model beside the masked one and comparing what they compute."""

"""What there is to see of each latent: the windows where it is most wrong, cut out and written for the page."""

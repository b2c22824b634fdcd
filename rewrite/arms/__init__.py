"""What is written at the hookpoint: calibrators, arms, controls, batches of windows, what each error costs."""

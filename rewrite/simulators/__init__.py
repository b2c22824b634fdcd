"""Simulators: each file reads explanations, or stands in as a control; `base` says what it must offer."""

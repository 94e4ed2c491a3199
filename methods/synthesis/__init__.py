"""What augmenters share: choosing whole episodes, coding discrete actions."""

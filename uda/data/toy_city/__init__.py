"""The toy city: a synthetic stand-in for GTA5, CycleGTA5 and Cityscapes."""

"""What is wrong with the data sets on a disk, found before a run of days does."""

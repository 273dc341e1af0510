"""What every process of Kindling does for whoever started it: progress, its last word, signals, and its exit."""

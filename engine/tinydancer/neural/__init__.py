"""Vector to category: FastGRNN, heads, training, calibration."""

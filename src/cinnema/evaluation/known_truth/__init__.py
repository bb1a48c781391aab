"""Task metrics: control, editing and transfer, on clips with known ground truth."""

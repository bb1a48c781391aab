"""What everything else uses: errors, files, weights, configurations, devices, ranks, randomness."""

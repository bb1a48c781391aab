"""Networks and estimators that others trained or designed: perceptual distance, features, flow."""

"""The keypoint model, whose latent describes paths of keypoints: a robot's arm, a person."""

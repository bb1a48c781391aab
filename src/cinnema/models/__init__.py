"""Video models: an encoder and a decoder (stage 1) and a conditional flow (stage 2) each."""

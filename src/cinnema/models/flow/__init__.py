"""Stage 2: a conditional flow between latents and residuals, and simpler priors to compare it to.

`transforms` and `couplings` hold the bijections, `flow` the network made of them, `conditioning`
what the flow is conditioned on, `priors` the interface that all priors share and two baselines.
"""

"""Training: samples, targets, losses, augmentation, the loop. It joins `drives`, `fusion` and `detection`; no room imports it."""

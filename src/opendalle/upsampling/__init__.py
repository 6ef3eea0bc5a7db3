"""The cascade's upsamplers, shared by all three generations."""

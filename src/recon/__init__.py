from recon.models.checkpoint import load

__all__ = ["load"]

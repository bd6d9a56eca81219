"""What happens, in what order. Start with `pipeline.py`; nothing here touches a tensor."""

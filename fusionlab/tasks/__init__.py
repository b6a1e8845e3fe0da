"""What fused images are for: tasks that judge them."""

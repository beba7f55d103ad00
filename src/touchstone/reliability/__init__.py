"""What judges a posterior; knows no model."""

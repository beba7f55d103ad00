"""What turns a simulator and an observation into a posterior; knows no model."""

"""The negative controls of the lab memory."""

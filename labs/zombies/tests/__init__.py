"""The negative controls of the lab zombies."""

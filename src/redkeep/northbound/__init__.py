"""The driver: applications and Redkeep's own processes talk over Redis with it."""

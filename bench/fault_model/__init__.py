"""The model of the fault matrix, as it is deployed."""

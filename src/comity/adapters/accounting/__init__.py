"""dp-accounting behind the Accountant port."""

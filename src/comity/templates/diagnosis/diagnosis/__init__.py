"""Diagnosis of breast tumours: a Flower app made from a Comity trainer."""

"""A scikit-learn classifier, trained over several sites."""

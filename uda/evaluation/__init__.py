"""A network and labeled images -> scores."""

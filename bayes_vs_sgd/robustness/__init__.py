"""How large a share of the parameters that fit as well violates a property, down to one in a million and below."""

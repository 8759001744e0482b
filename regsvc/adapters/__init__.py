"""The ways out, and the other foreign libraries at work below the flows: mail, cryptography, limits without SQL."""

"""What tests of applications, and of integrations, are made of."""

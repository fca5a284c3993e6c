"""How the tests on the full node act and look: as a user does, through kubectl, helm and HTTP."""

"""The suite; one package per part of the product, all under one root so that no name hides a package of the product."""

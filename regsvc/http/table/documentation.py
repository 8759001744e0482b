"""The pages for people, and the document for programs."""

from typing import Final

from regsvc.http import kinds, models
from regsvc.http.routes import ANY, HTML, Parameter, Route, Success, Tag
from regsvc.http.table.parts import NAME

DOCUMENTATION: Final = (
    Route(
        name="index",
        method="GET",
        path="/",
        tag=Tag.DOCUMENTATION,
        summary="Where to go from here",
        description="JSON, or a page for a browser.",
        success=Success(
            "The addresses of what there is.",
            models.Index,
            {
                "service": "regsvc",
                "version": "0.1.0",
                "documentation": "/docs",
                "openapi": "/openapi.json",
                "problems": "/problems",
                "health": "/v1/health",
                "mailbox": None,
            },
        ),
    ),
    Route(
        name="openapi",
        method="GET",
        path="/openapi.json",
        tag=Tag.DOCUMENTATION,
        summary="This document",
        success=Success("OpenAPI 3.1."),
    ),
    Route(
        name="docs",
        method="GET",
        path="/docs",
        tag=Tag.DOCUMENTATION,
        summary="This document as a page",
        success=Success("Swagger UI, working without a network.", media_type=HTML),
    ),
    Route(
        name="ops_page",
        method="GET",
        path="/ops",
        tag=Tag.OPERATIONS,
        summary="Watch the service",
        description="A page for administrators, who sign in on it: live figures, the log, dead letters.",
        success=Success("The page, the same for everybody.", media_type=HTML),
    ),
    Route(
        name="problem_index",
        method="GET",
        path="/problems",
        tag=Tag.DOCUMENTATION,
        summary="Every problem there is",
        success=Success("A page with links.", media_type=HTML),
    ),
    Route(
        name="problem",
        method="GET",
        path="/problems/{name}",
        tag=Tag.DOCUMENTATION,
        summary="What a problem means and what to do",
        description="The `type` of every problem is the address of its page.",
        parameters=(Parameter("name", "path", "The last part of a problem's `type`.", NAME),),
        success=Success("A page with an example.", media_type=HTML),
        problems=(kinds.NOT_FOUND,),
    ),
    Route(
        name="asset",
        method="GET",
        path="/assets/{name}",
        tag=Tag.DOCUMENTATION,
        summary="A style sheet or a script of the pages",
        parameters=(Parameter("name", "path", "A file's name.", NAME),),
        success=Success("The file.", media_type=ANY),
        problems=(kinds.NOT_FOUND,),
    ),
)

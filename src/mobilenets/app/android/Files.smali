# The page's files, from the package, as if a secure server gave them; there is nothing else to be had.
.class public Lorg/mobilenets/camera/Files;
.super Landroid/webkit/WebViewClient;

.field private final assets:Landroid/content/res/AssetManager;

.method public constructor <init>(Landroid/content/res/AssetManager;)V
    .locals 0
    invoke-direct {p0}, Landroid/webkit/WebViewClient;-><init>()V
    iput-object p1, p0, Lorg/mobilenets/camera/Files;->assets:Landroid/content/res/AssetManager;
    return-void
.end method

.method public shouldInterceptRequest(Landroid/webkit/WebView;Landroid/webkit/WebResourceRequest;)Landroid/webkit/WebResourceResponse;
    .locals 8
    invoke-interface {p2}, Landroid/webkit/WebResourceRequest;->getUrl()Landroid/net/Uri;
    move-result-object v0
    invoke-virtual {v0}, Landroid/net/Uri;->getPath()Ljava/lang/String;
    move-result-object v1
    new-instance v6, Ljava/util/HashMap;
    invoke-direct {v6}, Ljava/util/HashMap;-><init>()V
    const-string v2, "Cross-Origin-Opener-Policy"
    const-string v3, "same-origin"
    invoke-virtual {v6, v2, v3}, Ljava/util/HashMap;->put(Ljava/lang/Object;Ljava/lang/Object;)Ljava/lang/Object;
    const-string v2, "Cross-Origin-Embedder-Policy"
    const-string v3, "require-corp"
    invoke-virtual {v6, v2, v3}, Ljava/util/HashMap;->put(Ljava/lang/Object;Ljava/lang/Object;)Ljava/lang/Object;
    :try_start
    invoke-virtual {v0}, Landroid/net/Uri;->getHost()Ljava/lang/String;
    move-result-object v0
    const-string v2, "app.mobilenets.invalid"
    invoke-virtual {v2, v0}, Ljava/lang/String;->equals(Ljava/lang/Object;)Z
    move-result v0
    if-eqz v0, :none
    const/4 v0, 0x1
    invoke-virtual {v1, v0}, Ljava/lang/String;->substring(I)Ljava/lang/String;
    move-result-object v1
    iget-object v0, p0, Lorg/mobilenets/camera/Files;->assets:Landroid/content/res/AssetManager;
    invoke-virtual {v0, v1}, Landroid/content/res/AssetManager;->open(Ljava/lang/String;)Ljava/io/InputStream;
    move-result-object v7
    :try_end
    .catch Ljava/lang/Exception; {:try_start .. :try_end} :lacking
    invoke-static {v1}, Lorg/mobilenets/camera/Files;->type(Ljava/lang/String;)Ljava/lang/String;
    move-result-object v2
    new-instance v1, Landroid/webkit/WebResourceResponse;
    const-string v3, "utf-8"
    const/16 v4, 0xc8
    const-string v5, "OK"
    invoke-direct/range {v1 .. v7}, Landroid/webkit/WebResourceResponse;-><init>(Ljava/lang/String;Ljava/lang/String;ILjava/lang/String;Ljava/util/Map;Ljava/io/InputStream;)V
    return-object v1
    :lacking
    move-exception v0
    :none
    new-instance v1, Landroid/webkit/WebResourceResponse;
    const-string v2, "text/plain"
    const-string v3, "utf-8"
    const/16 v4, 0x194
    const-string v5, "Not Found"
    new-instance v7, Ljava/io/ByteArrayInputStream;
    const/4 v0, 0x0
    new-array v0, v0, [B
    invoke-direct {v7, v0}, Ljava/io/ByteArrayInputStream;-><init>([B)V
    invoke-direct/range {v1 .. v7}, Landroid/webkit/WebResourceResponse;-><init>(Ljava/lang/String;Ljava/lang/String;ILjava/lang/String;Ljava/util/Map;Ljava/io/InputStream;)V
    return-object v1
.end method

.method private static type(Ljava/lang/String;)Ljava/lang/String;
    .locals 1
    const-string v0, ".html"
    invoke-virtual {p0, v0}, Ljava/lang/String;->endsWith(Ljava/lang/String;)Z
    move-result v0
    if-eqz v0, :not_0
    const-string v0, "text/html"
    return-object v0
    :not_0
    const-string v0, ".css"
    invoke-virtual {p0, v0}, Ljava/lang/String;->endsWith(Ljava/lang/String;)Z
    move-result v0
    if-eqz v0, :not_1
    const-string v0, "text/css"
    return-object v0
    :not_1
    const-string v0, ".js"
    invoke-virtual {p0, v0}, Ljava/lang/String;->endsWith(Ljava/lang/String;)Z
    move-result v0
    if-eqz v0, :not_2
    const-string v0, "text/javascript"
    return-object v0
    :not_2
    const-string v0, ".json"
    invoke-virtual {p0, v0}, Ljava/lang/String;->endsWith(Ljava/lang/String;)Z
    move-result v0
    if-eqz v0, :not_3
    const-string v0, "application/json"
    return-object v0
    :not_3
    const-string v0, ".webmanifest"
    invoke-virtual {p0, v0}, Ljava/lang/String;->endsWith(Ljava/lang/String;)Z
    move-result v0
    if-eqz v0, :not_4
    const-string v0, "application/manifest+json"
    return-object v0
    :not_4
    const-string v0, ".png"
    invoke-virtual {p0, v0}, Ljava/lang/String;->endsWith(Ljava/lang/String;)Z
    move-result v0
    if-eqz v0, :not_5
    const-string v0, "image/png"
    return-object v0
    :not_5
    const-string v0, ".wasm"
    invoke-virtual {p0, v0}, Ljava/lang/String;->endsWith(Ljava/lang/String;)Z
    move-result v0
    if-eqz v0, :not_6
    const-string v0, "application/wasm"
    return-object v0
    :not_6
    const-string v0, "application/octet-stream"
    return-object v0
.end method
